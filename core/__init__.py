"""What everything stands on: errors, whole files, disks, statistics. Imports nothing of ours."""
