"""From files on disk to images in memory: manifest, audit, splits, cache, augmentation."""
