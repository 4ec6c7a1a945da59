"""What an evaluation leaves behind: its JSON, its tables, and runs side by side with published numbers."""
