"""The platform from outside; a package, so that its tests share one platform and end it."""
