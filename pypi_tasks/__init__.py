"""What the tasks do. One module per noun; only ``world`` changes anything outside this process."""
