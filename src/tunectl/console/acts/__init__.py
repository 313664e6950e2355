"""What can be changed from the console, one kind of act per file."""
