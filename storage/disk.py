"""The disk seam."""


class Disk:
    """Stand-in until the storage work lands."""


class RealDisk(Disk):
    """Stand-in until the storage work lands."""
