"""Runs stages of this recipe: python run.py --stages train --training_config FILE."""

from espnet_cif_hkd.recipe.espnet3 import main

# Worker processes import this file again.
if __name__ == "__main__":
    main()
