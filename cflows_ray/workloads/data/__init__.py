"""One data set a file: where its arrays come from and how they are prepared."""
