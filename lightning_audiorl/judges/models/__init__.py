"""The models that judge: recognisers, speaker encoders and quality predictors."""
