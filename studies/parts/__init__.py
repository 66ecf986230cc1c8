"""What the larger studies are made of, a folder for each."""
