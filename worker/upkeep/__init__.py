"""Periodic duties, one file each: a constant `EVERY` and a function `run_once`. Only `calendar` knows APScheduler."""
