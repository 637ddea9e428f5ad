"""Features of a recording over time, computed by librosa from its short-time spectrum."""

import warnings
from functools import cached_property

import numpy as np

# Frames from which a derivative is computed, librosa's default.
_DELTA_WIDTH = 9

# Lowest edge in Hz of the octaves of spectral contrast, and the most octaves: librosa's defaults.
LOWEST_CONTRAST = 200.0
_MOST_OCTAVES = 6

# Frames whose complex Fourier transforms are in memory at a time.
_FRAMES_AT_ONCE = 4096


def contrast_octaves(rate):
    """Return the number of octaves of spectral contrast that end below half a sampling rate."""
    return sum(LOWEST_CONTRAST * 2**octave < rate / 2 for octave in range(1, _MOST_OCTAVES + 1))


class SpectralFeatures:
    """Features of one recording over time. Each is an attribute of shape (n_values, n_frames), computed once.

    A waveform (n_times,) of float32 that is shorter than a frame, ``n_fft`` samples, is filled up with zeros. ``rate``
    is in Hz, ``hop_length`` the samples from one frame to the next, ``n_mels`` the number of mel bands, and ``n_mfcc``
    that of cepstral coefficients.
    """

    def __init__(self, waveform, rate, *, n_fft, hop_length, n_mels, n_mfcc=20):
        import librosa

        self._librosa = librosa
        self._waveform = np.pad(waveform, (0, max(0, n_fft - len(waveform))))
        self._rate = rate
        # The spectrum alone does not tell an odd length from the even one below it.
        self._of_spectrum = {"sr": rate, "n_fft": n_fft}
        self._n_fft, self._hop_length = n_fft, hop_length
        self._n_mels, self._n_mfcc = n_mels, n_mfcc

    @cached_property
    def magnitude(self):
        """Magnitudes of the short-time Fourier transform."""
        n_fft, hop_length = self._n_fft, self._hop_length
        padded = np.pad(self._waveform, n_fft // 2)
        n_frames = 1 + (len(padded) - n_fft) // hop_length
        magnitude = np.empty((1 + n_fft // 2, n_frames), np.float32, order="F")
        for start in range(0, n_frames, _FRAMES_AT_ONCE):
            end = min(start + _FRAMES_AT_ONCE, n_frames)
            window = padded[start * hop_length : (end - 1) * hop_length + n_fft]
            spectrum = self._librosa.stft(window, n_fft=n_fft, hop_length=hop_length, center=False)
            magnitude[:, start:end] = np.abs(spectrum)
        return magnitude

    @cached_property
    def logmel(self):
        """Power in each mel band, in decibels."""
        with warnings.catch_warnings():
            # Where frames are short and bands are many, the lowest bands hold no frequency: a constant column.
            warnings.filterwarnings("ignore", message="Empty filters detected")
            mel = self._librosa.feature.melspectrogram(S=self.magnitude**2, n_mels=self._n_mels, **self._of_spectrum)
        return self._librosa.power_to_db(mel)

    @cached_property
    def mfcc(self):
        """Mel-frequency cepstral coefficients."""
        return self._librosa.feature.mfcc(S=self.logmel, n_mfcc=self._n_mfcc)

    @cached_property
    def mfcc_delta(self):
        """First derivative of the coefficients."""
        return self._librosa.feature.delta(self.mfcc, width=_DELTA_WIDTH, mode="nearest")

    @cached_property
    def mfcc_delta2(self):
        """Second derivative of the coefficients."""
        return self._librosa.feature.delta(self.mfcc, width=_DELTA_WIDTH, order=2, mode="nearest")

    @cached_property
    def chroma(self):
        """Power in each pitch class."""
        # Tuned to 440 Hz: an estimate would need a recording long enough, and pitches in it.
        return self._librosa.feature.chroma_stft(S=self.magnitude**2, tuning=0.0, **self._of_spectrum)

    @cached_property
    def centroid(self):
        """Centre of the spectrum in Hz."""
        return self._librosa.feature.spectral_centroid(S=self.magnitude, **self._of_spectrum)

    @cached_property
    def bandwidth(self):
        """Spread of the spectrum in Hz."""
        return self._librosa.feature.spectral_bandwidth(S=self.magnitude, **self._of_spectrum)

    @cached_property
    def rolloff(self):
        """85 % quantile of the spectrum in Hz."""
        return self._librosa.feature.spectral_rolloff(S=self.magnitude, **self._of_spectrum)

    @cached_property
    def contrast(self):
        """Decibels between peaks and valleys of each octave."""
        return self._librosa.feature.spectral_contrast(
            S=self.magnitude, fmin=LOWEST_CONTRAST, n_bands=contrast_octaves(self._rate), **self._of_spectrum
        )

    @cached_property
    def flatness(self):
        """Flatness of the spectrum, 1 for white noise."""
        return self._librosa.feature.spectral_flatness(S=self.magnitude)

    @cached_property
    def zcr(self):
        """Share of samples at which the waveform changes its sign."""
        return self._librosa.feature.zero_crossing_rate(
            self._waveform, frame_length=self._n_fft, hop_length=self._hop_length
        )

    @cached_property
    def rms(self):
        """Root of the mean square."""
        return self._librosa.feature.rms(y=self._waveform, frame_length=self._n_fft, hop_length=self._hop_length)
