"""The small size of every notebook for the tests: a few seconds beyond the imports.

Names must stand in the notebook's cell tagged `parameters`; asserts in the notebook must hold at this size too.
"""

SMALL = {
    "00_start_here": {"epochs": 1, "seeds": 2, "classifier_epochs": 8},
    "01_convolutional_autoencoder": {"epochs": 1, "wide_epochs": 1, "clu_epochs": 2},
    "02_variational_autoencoder": {"epochs": 1},
    "03_tsne_autoencoder": {"epochs": 1, "batch_epochs": 1, "sweep_epochs": 1, "weights": [1.0]},
    "04_variational_tsne_autoencoder": {"epochs": 1, "spreads": [1.0, 10.0]},
    "05_latent_maps": {"epochs": 1, "views": 300, "difficulty_epochs": 3},
    "06_codes_from_views": {"epochs": 1, "shown": 200, "draws": 1},
    "07_sampling_strategies": {"epochs": 1, "map_epochs": 1, "map_draws": 1},
    "08_query_sets_and_classifiers": {"epochs": 1, "live_epochs": 1, "live_seeds": 1, "steps": 20, "grid": 5},
    "09_uncertainty_in_latent_space": {"epochs": 1, "live_rounds": 1, "live_seeds": 1, "shown": 200},
    "10_task_agnostic_features": {"live_size": [2, 1], "shown": [200, 200, 20]},
    "11_semi_supervised_m2": {"epochs": 1, "stacked_epochs": 3, "generator_epochs": 1},
    "12_adversarial_selection": {
        "epochs": 1,
        "share": 0.04,
        "per_class": 15,
        "step": 8,
        "shared_labels": 160,
        "live_seeds": 1,
    },
    "13_strategies_that_cover": {"epochs": 1, "pool_size": 300, "n": 10, "seeds": 2},
    "14_compare_everything": {"seeds": 2, "rounds": 1, "random_rounds": 2},
    "15_label_your_own_images": {"n_photos": 400, "held_out": 40, "rounds": 4, "epochs": 1},
}
