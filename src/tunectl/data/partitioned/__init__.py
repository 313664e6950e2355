"""Curation of records in partitions, for data that one machine cannot hold: the blocks and the result of the local way."""
