"""Server and client of Flower, in a separate environment, and the local trainings of a client."""
