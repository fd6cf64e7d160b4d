"""Host power: orders to management controllers, and the sequences that put hosts to sleep and wake them."""
