"""What does it cost: pure arithmetic over a versioned price table."""
