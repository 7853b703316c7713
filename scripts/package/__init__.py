"""A release: both charts as archives, a bill of materials for each image, their versions."""
