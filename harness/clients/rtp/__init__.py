"""Audio of held calls: many legs in a process of their own, judged by what the kernel received and when."""
