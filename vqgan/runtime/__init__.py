"""What a program runs on: processes, devices, signals."""
