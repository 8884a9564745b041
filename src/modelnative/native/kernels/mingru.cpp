// The recurrence of a minGRU, forward and backward. The definition is `min_gru` of policies/cores/mingru.py.

#include "threads.h"
#include "vectors.h"

extern "C" {

// T steps of n sequences, time first: h = h + sigmoid(update) * (candidate - h).
struct MinGRUCall {
    const float* gates;    // [T, n, 2 width], update and candidate
    const float* initial;  // [n, width]
    int64_t steps, sequences, width, threads;
};

int64_t mingru_call_size() { return sizeof(MinGRUCall); }

// Hidden states [T, n, width].
void mingru_forward(const MinGRUCall* call, float* hidden) {
    const MinGRUCall& c = *call;
    const int64_t H = c.width, parts = std::min(c.threads, c.sequences);
    workers().share(parts, c.threads, [&](int64_t part) {
        const int64_t first = c.sequences * part / parts, end = c.sequences * (part + 1) / parts;
        for (int64_t t = 0; t < c.steps; t++)
            for (int64_t i = first; i < end; i++) {
                const float *gate = c.gates + (t * c.sequences + i) * 2 * H,
                            *before = t ? hidden + ((t - 1) * c.sequences + i) * H : c.initial + i * H;
                float* now = hidden + (t * c.sequences + i) * H;
                for (int64_t j = 0; j < H; j += LANES) {
                    const vec old = load(before + j);
                    store(now + j, old + sigmoid(load(gate + j)) * (load(gate + H + j) - old));
                }
            }
    });
}

// From the gradient of the hidden states to those of `gates` and `initial`.
void mingru_backward(const MinGRUCall* call, const float* hidden, const float* grad, float* of_gates,
                     float* of_initial) {
    const MinGRUCall& c = *call;
    const int64_t H = c.width, parts = std::min(c.threads, c.sequences);
    workers().share(parts, c.threads, [&](int64_t part) {
        const int64_t first = c.sequences * part / parts, end = c.sequences * (part + 1) / parts;
        std::fill(of_initial + first * H, of_initial + end * H, 0.0f);  // what later steps add to the gradient
        for (int64_t t = c.steps - 1; t >= 0; t--)
            for (int64_t i = first; i < end; i++) {
                const int64_t token = t * c.sequences + i;
                const float *gate = c.gates + token * 2 * H,
                            *before = t ? hidden + (token - c.sequences) * H : c.initial + i * H;
                float *out = of_gates + token * 2 * H, *carried = of_initial + i * H;
                for (int64_t j = 0; j < H; j += LANES) {
                    const vec z = sigmoid(load(gate + j)), dh = load(grad + token * H + j) + load(carried + j);
                    store(out + j, dh * (load(gate + H + j) - load(before + j)) * z * (1.0f - z));
                    store(out + H + j, dh * z);
                    store(carried + j, dh * (1.0f - z));
                }
            }
    });
}

}  // extern "C"
