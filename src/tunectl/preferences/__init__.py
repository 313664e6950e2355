"""The preference data set: aggregate votes, build contrastive pairs, simulate an annotator."""
