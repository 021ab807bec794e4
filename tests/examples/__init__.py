"""The example configs, and the price lists that they publish."""
