"""Curation of records in partitions, for data larger than one machine can hold: the filters and the result of local curation."""
