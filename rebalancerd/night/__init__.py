"""A night of consolidation: rehearsed beforehand, and accounted while it passes."""
