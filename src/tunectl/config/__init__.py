"""Floor 3: what a run is. Schema, composition, check."""
