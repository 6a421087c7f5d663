"""What this machine has, what a plugin says it will take of it, and what is left on its disks."""
