"""`pbx-chaos capacity`: load that rises until callers notice, in normal operation and while the active node dies."""
