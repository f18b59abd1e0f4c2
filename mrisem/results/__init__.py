"""What a run folder says: its record, its files, and what is reckoned from them."""
