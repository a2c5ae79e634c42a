"""The cache of scores: keys of pairs, values that say whether they are whole, and stores."""
