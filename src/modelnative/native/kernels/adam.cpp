// Adam with a clipped gradient. The definition is `clipped_adam` of training/adam.py.

#include <cmath>
#include <cstdint>

#include "vectors.h"

extern "C" {

struct AdamCall {
    float* const* parameters;       // `count` pointers, and so the next three
    const float* const* gradients;  //
    float *const *averages, *const *squares, *const *steps;
    const int64_t* sizes;  // [count]
    int64_t count;
    float lr, max_norm, beta1, beta2, epsilon;
};

int64_t adam_call_size() { return sizeof(AdamCall); }

// Changes parameters, averages, squares and steps; `norm` gets that of the gradient before clipping.
void adam_step(const AdamCall* call, float* norm) {
    const AdamCall& c = *call;
    double total = 0;
    for (int64_t k = 0; k < c.count; k++)
        for (int64_t i = 0; i < c.sizes[k];) {
            float lanes[LANES] = {};
            const int64_t end = std::min(c.sizes[k], i + 64 * LANES);
            vec sum = {};
            for (; i + LANES <= end; i += LANES) sum += load(c.gradients[k] + i) * load(c.gradients[k] + i);
            store(lanes, sum);
            for (float lane : lanes) total += lane;
            for (; i < end; i++) total += double{c.gradients[k][i]} * c.gradients[k][i];
        }
    *norm = std::sqrt(total);
    const float wanted = c.max_norm / (*norm + 1e-6f), scale = wanted > 1 ? 1 : wanted;  // NaN stays NaN
    for (int64_t k = 0; k < c.count; k++) {
        const double step = ++*c.steps[k];
        const float rate = c.lr / (1 - std::pow(double{c.beta1}, step)),
                    root = std::sqrt(1 - std::pow(double{c.beta2}, step));
        float* __restrict p = c.parameters[k], * __restrict m = c.averages[k], * __restrict v = c.squares[k];
        const float* __restrict g = c.gradients[k];
        const float keep = c.beta2, fresh = 1 - c.beta2, own = 1 - c.beta1, epsilon = c.epsilon;
        for (int64_t i = 0, size = c.sizes[k]; i < size; i++) {
            const float slope = g[i] * scale;
            m[i] += own * (slope - m[i]);
            v[i] = keep * v[i] + fresh * slope * slope;
            p[i] -= rate * m[i] / (std::sqrt(v[i]) / root + epsilon);
        }
    }
}

}  // extern "C"
