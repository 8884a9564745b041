// The GRU, forward and backward; the plain definition is in Python.

#include "threads.h"
#include "vectors.h"

extern "C" {

int64_t lanes() { return LANES; }

// What a GRU reads: for each of N tokens the sum of the rows of a table for the token, for the stage of its episode and
// for each place of the feedback that is not blank. Without a table the sums lie in `gates` already.
struct Inputs {
    const float* table;       // [*, 3 width], or null
    const int64_t* token;     // [*]
    const int64_t* feedback;  // [*, places]
    const int64_t* where;     // [N], which rows of the two are meant; null for the first N
    const int64_t* stage;     // [n], or null where the policy does not read it
    int64_t places, vocabulary, stages, blank;
};

// T packed steps of n episodes, as in `recurrence.gru`.
struct Packed {
    const int64_t* sizes;  // [T]
    int64_t steps, episodes, width;
    const float* h0;      // [n, width]
    const float* weight;  // [3 width, width]
    const float* bias;    // [width]
};

static int64_t rows_of(const Inputs& in, int64_t token, int64_t episode, int64_t* rows) {
    const int64_t at = in.where ? in.where[token] : token;
    int64_t count = 0;
    rows[count++] = in.token[at];
    if (in.stage) rows[count++] = in.vocabulary + in.stage[episode];
    for (int64_t place = 0; place < in.places; place++) {
        int64_t shown = in.feedback[at * in.places + place];
        if (shown != in.blank) rows[count++] = in.vocabulary + in.stages + place * in.vocabulary + shown;
    }
    return count;
}

// Hidden states [N, width]. For `gru_backward`, `gates` [N, 3 width] keeps the gates and `inner` [N, width] the
// candidate's recurrent part; both may be null where there is a table.
void gru_forward(const Packed* packed, const Inputs* inputs, float* gates, float* hidden, float* inner,
                 int64_t threads) {
    const Packed& p = *packed;
    const int64_t H = p.width, G = 3 * H, blocks = (p.episodes + BLOCK - 1) / BLOCK,
                  parts = std::min(4 * threads, blocks);
    std::vector<float> across(H * G);
    for (int64_t i = 0; i < G; i++)
        for (int64_t k = 0; k < H; k++) across[k * G + i] = p.weight[i * H + k];
    crew().share(parts, threads, [&](int64_t part) {
        std::vector<float> recurrent(BLOCK * G), sums(G);
        std::vector<int64_t> rows(2 + inputs->places);
        for (int64_t first = part * BLOCK; first < p.episodes; first += parts * BLOCK) {
            const float* before = p.h0 + first * H;
            for (int64_t t = 0, start = 0; t < p.steps; start += p.sizes[t++]) {
                const int64_t count = std::min(p.sizes[t] - first, BLOCK);
                if (count <= 0) break;
                product(count, G, H, before, H, 1, across.data(), G, recurrent.data(), G, false);
                for (int64_t i = 0; i < count; i++) {
                    const int64_t token = start + first + i;
                    float* gate = gates ? gates + token * G : sums.data();
                    if (inputs->table) {
                        const int64_t found = rows_of(*inputs, token, first + i, rows.data());
                        for (int64_t j = 0; j < G; j += LANES) {
                            vec sum = load(inputs->table + rows[0] * G + j);
                            for (int64_t k = 1; k < found; k++) sum += load(inputs->table + rows[k] * G + j);
                            store(gate + j, sum);
                        }
                    }
                    const float *own = recurrent.data() + i * G, *old = before + i * H;
                    float *now = hidden + token * H, *kept = inner ? inner + token * H : nullptr;
                    for (int64_t j = 0; j < H; j += LANES) {
                        vec reset = sigmoid(load(gate + j) + load(own + j));
                        vec update = sigmoid(load(gate + H + j) + load(own + H + j));
                        vec within = load(own + 2 * H + j) + load(p.bias + j);
                        vec proposed = 2.0f * sigmoid(2.0f * (load(gate + 2 * H + j) + reset * within)) - 1.0f;
                        store(now + j, proposed + update * (load(old + j) - proposed));
                        if (!kept) continue;
                        store(gate + j, reset);
                        store(gate + H + j, update);
                        store(gate + 2 * H + j, proposed);
                        store(kept + j, within);
                    }
                }
                before = hidden + (start + first) * H;
            }
        }
    });
}

// From the gradient of the hidden states to those of all else, of which `of_gates` [N, 3 width] may be null; with a
// table, `of_table` is the gradient of its rows.
void gru_backward(const Packed* packed, const Inputs* inputs, const float* gates, const float* hidden,
                  const float* inner, const float* grad, float* of_gates, float* of_h0, float* of_table,
                  int64_t table_rows, float* of_weight, float* of_bias, int64_t threads) {
    const Packed& p = *packed;
    const int64_t H = p.width, G = 3 * H, blocks = (p.episodes + BLOCK - 1) / BLOCK;
    std::vector<int64_t> starts(p.steps + 1);
    for (int64_t t = 0; t < p.steps; t++) starts[t + 1] = starts[t] + p.sizes[t];
    Sums sums({{of_weight, G * H}, {of_bias, H}, {of_table, of_table ? table_rows * G : 0}}, blocks / 2);
    crew().share(sums.parts, threads, [&](int64_t part) {
        float *of_weight = sums.of(part, 0), *of_bias = sums.of(part, 1), *of_table = sums.of(part, 2);
        std::vector<float> change(BLOCK * G), carried(BLOCK * H), whole(G);
        std::vector<int64_t> rows(2 + inputs->places);
        for (int64_t first = part * BLOCK; first < p.episodes; first += sums.parts * BLOCK) {
            std::fill(carried.begin(), carried.end(), 0.0f);
            for (int64_t t = p.steps - 1; t >= 0; t--) {
                const int64_t count = std::min(p.sizes[t] - first, BLOCK);
                if (count <= 0) continue;
                const float* before = (t ? hidden + starts[t - 1] * H : p.h0) + first * H;
                for (int64_t i = 0; i < count; i++) {
                    const int64_t token = starts[t] + first + i;
                    const float *gate = gates + token * G, *old = before + i * H;
                    float *turn = change.data() + i * G, *back = carried.data() + i * H;
                    float* out = of_gates ? of_gates + token * G : whole.data();
                    for (int64_t j = 0; j < H; j += LANES) {
                        vec reset = load(gate + j), update = load(gate + H + j), proposed = load(gate + 2 * H + j);
                        vec dh = load(grad + token * H + j) + load(back + j);
                        vec of_candidate = dh * (1.0f - update) * (1.0f - proposed * proposed);
                        vec of_inner = of_candidate * reset;
                        vec of_reset = of_inner * load(inner + token * H + j) * (1.0f - reset);
                        vec of_update = dh * (load(old + j) - proposed) * update * (1.0f - update);
                        store(back + j, dh * update);
                        store(turn + j, of_reset);
                        store(turn + H + j, of_update);
                        store(turn + 2 * H + j, of_inner);
                        store(out + j, of_reset);
                        store(out + H + j, of_update);
                        store(out + 2 * H + j, of_candidate);
                        store(of_bias + j, load(of_bias + j) + of_inner);
                    }
                    if (!inputs->table) continue;
                    const int64_t found = rows_of(*inputs, token, first + i, rows.data());
                    for (int64_t k = 0; k < found; k++) {
                        float* row = of_table + rows[k] * G;
                        for (int64_t j = 0; j < G; j += LANES) store(row + j, load(row + j) + load(out + j));
                    }
                }
                product(count, H, G, change.data(), G, 1, p.weight, H, carried.data(), H, true);
                product(G, H, count, change.data(), 1, G, before, H, of_weight, H, true);
            }
            std::memcpy(of_h0 + first * H, carried.data(), std::min(p.episodes - first, BLOCK) * H * sizeof(float));
        }
    });
    sums.add();
}

}  // extern "C"
