// The GRU, forward and backward. The definition is `gru` of policies/cores/gru.py.

#include "gru.h"

#include "threads.h"

extern "C" {

int64_t lanes() { return LANES; }

// T steps of n sequences; token t of sequence i has the index t * n + i. The input of a token is the sum of the rows of
// `inputs` for the token, for its sequence's stage and for each place of its feedback that is not blank, as in
// `InputRows` of policies/core.py. With `tokens` null, row k is token k's input. Sequence i ends before step
// lengths[i]; what follows is neither read nor differentiated, and its hidden state is 0.
struct GRUCall {
    const float* inputs;      // [*, 3 width]
    const float* initial;     // [n, width]
    const float* weight;      // [3 width, width]
    const float* bias;        // [width]
    const int64_t* lengths;   // [n], or null where every sequence has T steps
    const int64_t* tokens;    // [T * n], or null
    const int64_t* stage;     // [n], or null
    const int64_t* feedback;  // [T * n, places], or null where there are no places
    int64_t first_place, vocabulary, blank, places, steps, sequences, width, input_rows, threads;

    int64_t length(int64_t sequence) const { return lengths ? lengths[sequence] : steps; }

    // How many of the sequences from `first` on, at most BLOCK, must be computed at step t: up to the last that runs.
    int64_t running(int64_t first, int64_t t) const {
        int64_t last = std::min(sequences - first, BLOCK);
        while (last && length(first + last - 1) <= t) last--;
        return last;
    }

    // Writes the rows that are added up for a token; returns how many.
    int64_t rows(int64_t token, int64_t sequence, int64_t* to) const {
        int64_t count = 0;
        to[count++] = tokens[token];
        if (stage) to[count++] = stage[sequence];
        for (int64_t place = 0; place < places; place++) {
            const int64_t shown = feedback[token * places + place];
            to[count] = first_place + place * vocabulary + shown;
            count += shown != blank;
        }
        return count;
    }

    void add_rows(int64_t token, int64_t sequence, int64_t* buffer, float* sum) const {
        const int64_t G = 3 * width, count = rows(token, sequence, buffer);
        for (int64_t j = 0; j < G; j += LANES) {
            vec total = {};
            for (int64_t k = 0; k < count; k++) total += load(inputs + buffer[k] * G + j);
            store(sum + j, total);
        }
    }
};

int64_t gru_call_size() { return sizeof(GRUCall); }

// Hidden states [T * n, width]. For `gru_backward`, `gates` [T * n, 3 width] gets the gates and `inner` [T * n, width]
// the candidate's recurrent part; both may be null.
void gru_forward(const GRUCall* call, float* gates, float* hidden, float* inner) {
    const GRUCall& c = *call;
    const int64_t H = c.width, G = 3 * H, blocks = (c.sequences + BLOCK - 1) / BLOCK,
                  parts = std::min(4 * c.threads, blocks);
    std::vector<float> across(H * G);
    transpose_to(c.weight, G, H, across.data());
    workers().share(parts, c.threads, [&](int64_t part) {
        std::vector<float> recurrent(BLOCK * G), sums(G);
        std::vector<int64_t> rows(3 + c.places);
        for (int64_t first = part * BLOCK; first < c.sequences; first += parts * BLOCK) {
            const float* before = c.initial + first * H;
            for (int64_t t = 0; t < c.steps; t++) {
                const int64_t start = t * c.sequences + first, count = c.running(first, t);
                const int64_t size = std::min(c.sequences - first, BLOCK);
                std::fill_n(hidden + (start + count) * H, (size - count) * H, 0.0f);
                auto input = [&](int64_t i) -> const float* {
                    if (c.length(first + i) <= t) return nullptr;
                    if (!c.tokens) return c.inputs + (start + i) * G;
                    c.add_rows(start + i, first + i, rows.data(), sums.data());
                    return sums.data();
                };
                gru_step(count, H, before, across.data(), c.bias, recurrent.data(), hidden + start * H,
                         gates ? gates + start * G : nullptr, inner ? inner + start * H : nullptr, input);
                before = hidden + start * H;
            }
        }
    });
}

// From the gradient of the hidden states to those of `inputs`, `initial`, `weight` and `bias`.
void gru_backward(const GRUCall* call, const float* gates, const float* hidden, const float* inner, const float* grad,
                  float* of_inputs, float* of_initial, float* of_weight, float* of_bias) {
    const GRUCall& c = *call;
    const int64_t H = c.width, G = 3 * H, blocks = (c.sequences + BLOCK - 1) / BLOCK;
    Sums sums({{of_weight, G * H}, {of_bias, H}, {of_inputs, c.tokens ? c.input_rows * G : 0}}, blocks / 2);
    workers().share(sums.parts, c.threads, [&](int64_t part) {
        float *of_weight = sums.of(part, 0), *of_bias = sums.of(part, 1), *of_table = sums.of(part, 2);
        std::vector<float> change(BLOCK * G), carried(BLOCK * H), sum(G);
        std::vector<int64_t> rows(3 + c.places);
        for (int64_t first = part * BLOCK; first < c.sequences; first += sums.parts * BLOCK) {
            const int64_t size = std::min(c.sequences - first, BLOCK);
            std::fill(carried.begin(), carried.end(), 0.0f);
            for (int64_t t = c.steps - 1; t >= 0; t--) {
                const int64_t start = t * c.sequences + first, count = c.running(first, t);
                const float* before = t ? hidden + (start - c.sequences) * H : c.initial + first * H;
                if (!c.tokens) std::fill_n(of_inputs + (start + count) * G, (size - count) * G, 0.0f);
                if (!count) continue;
                auto out = [&](int64_t i) -> float* {
                    float* to = c.tokens ? sum.data() : of_inputs + (start + i) * G;
                    if (c.length(first + i) > t) return to;
                    if (!c.tokens) std::fill_n(to, G, 0.0f);
                    return nullptr;
                };
                auto added = [&](int64_t i) {
                    const int64_t known = c.tokens ? c.rows(start + i, first + i, rows.data()) : 0;
                    for (int64_t k = 0; k < known; k++) add_to(of_table + rows[k] * G, sum.data(), G);
                };
                gru_step_back(count, H, before, c.weight, gates + start * G, inner + start * H, grad + start * H,
                              carried.data(), change.data(), of_weight, of_bias, out, added);
            }
            std::memcpy(of_initial + first * H, carried.data(), size * H * sizeof(float));
        }
    });
    sums.add();
}

}  // extern "C"
