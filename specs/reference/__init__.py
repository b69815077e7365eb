"""What every sum of CRA means, in plain slow Python that imports nothing of `cra`."""
