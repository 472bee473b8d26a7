"""What does a trained one do? Encode, decode, export, import, publish."""
