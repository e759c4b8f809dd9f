"""What is in a data set before anything is trained on it: broken records, unreadable pictures, duplicates, overlap."""
