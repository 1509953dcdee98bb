"""What makes two calls the same: values as bytes and back, and versions of code."""
