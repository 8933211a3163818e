"""What we guess before we measure: latency from a profile, accuracy from measured candidates."""
