"""A load test of a server: who asks when, what came back after how long. `penstock bench`."""
