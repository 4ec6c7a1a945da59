"""What a run tells of itself: metrics kept on the device, written as files, and the watch for collapsed features."""
