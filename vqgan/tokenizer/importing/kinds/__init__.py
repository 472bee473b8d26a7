"""One file a project: `translate` takes what its checkpoint holds, and says which of our tensors each of its is."""
