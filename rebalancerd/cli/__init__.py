"""Commands for people; nothing is decided here."""
