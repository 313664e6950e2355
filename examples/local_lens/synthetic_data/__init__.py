"""The generator of the example's synthetic data: invented businesses, templates of briefs and ads, and raw files about the businesses."""
