"""What `make bench` measures, and the floors it is compared with."""
