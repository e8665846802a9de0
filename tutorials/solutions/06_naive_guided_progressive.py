"""Solutions of lesson 06.

3. (a) One may: each target is then a whole walk of the teacher, 32 calls for a single update of the student. Halving
asks two calls an update, and each stage's student has little to learn, since it begins as its teacher. Stored pairs are
the other way out: the walks are made once, and used many times, but only from pure noise.
(b) By 16. Guidance makes the 32 steps 64 calls; the student of stage one spends 32, and the halved one 4.
"""


def target_in_zeta(zeta_t, n_t, zeta_s, n_s):
    return zeta_t - n_t * (zeta_s - zeta_t) / (n_s - n_t)


def shrunk_by(f):
    return f**15  # 8 mistakes of the 8-step student, 4 of the next, then 2, then 1
