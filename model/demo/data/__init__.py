"""The questions and answers that the demo model learns from, made by rule from word lists."""
