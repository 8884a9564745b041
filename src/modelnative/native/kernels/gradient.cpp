// The gradient of the loss on whole episodes: forward pass, loss and backward pass of a few episodes after the other,
// so that all that is between them stays in the caches; and the same forward pass alone. The definitions are
// `policy_gradient` and `action_log_probs` of training/gradient.py.

#include "loss.h"
#include "network.h"
#include "threads.h"

extern "C" {

// T steps of n episodes, time first; token t of episode e has the index t * n + e. The gradient is that of M episodes.
struct GradientCall {
    Network net;
    const int64_t *token, *feedback;   // [T * n] and [T * n, feedback places]
    const int64_t *context, *stage;    // [n, places] and [n]
    const int64_t *length, *episodes;  // [n] and [M]
    const bool* mask;                  // [T * n], the tokens that are asked for: those in the loss
    LossColumns columns;
    int64_t all, count, threads;  // n, M
    LossWeights weights;
};

int64_t gradient_call_size() { return sizeof(GradientCall); }
}

namespace {

// Gradients of one part of the episodes.
struct Gradients {
    float *recurrent, *inner, *table, *stages, *context, *head_weight, *head_bias;
};

// What all blocks read: the order of the episodes, and weights laid out for products.
struct Prepared {
    std::vector<int32_t> packed;        // [rows], the place in `which` of a row of the embeddings
    std::vector<int64_t> which, order;  // the rows that inputs need; the places in `episodes`, the longest first
    std::vector<float> embedding, table, across, head_across, head_bias;

    explicit Prepared(const GradientCall& c);
};

// Buffers for a block of episodes.
struct Block {
    const GradientCall& c;
    const Prepared& given;
    const Network& net;
    const HeadShape shape;
    const int64_t H, G, V, C, padded;
    int64_t size = 0, steps = 0, room = 0;
    int64_t episode[BLOCK], place[BLOCK];  // and its place in `episodes`
    std::vector<float> hidden, gates, inner, grad, sum, recurrent, carried;
    std::vector<float> states, out, of_states, mixed, logs, chance, of_copy;
    std::vector<int32_t> inputs, counts;         // the rows of every token's input, and how many they are
    std::vector<int64_t> where, at, last_count;  // tokens in the loss: here, and in the columns

    Block(const GradientCall& call, const Prepared& given)
        : c(call),
          given(given),
          net(call.net),
          shape(net.heads()),
          H(net.width),
          G(net.gates()),
          V(net.vocabulary),
          C(shape.places),
          padded(shape.padded()),
          sum(G),
          recurrent(BLOCK * G),
          carried(BLOCK * H),
          states(GROUP * H),
          out(GROUP * padded),
          of_states(GROUP * H),
          mixed((V + C) * LANES),
          logs(V * LANES),
          chance(V * LANES),
          of_copy(C * LANES) {}

    float* before(int64_t t) { return hidden.data() + t * BLOCK * H; }

    // Takes the episodes from `first` on; at step t, those up to the last that runs are computed.
    void take(int64_t first) {
        size = std::min(c.count - first, BLOCK), steps = 0;
        for (int64_t i = 0; i < size; i++) {
            place[i] = given.order[first + i], episode[i] = c.episodes[place[i]];
            steps = std::max(steps, c.length[episode[i]]);
        }
        if (steps > room) {
            room = steps;
            hidden.resize((room + 1) * BLOCK * H), gates.resize(room * BLOCK * G), inner.resize(room * BLOCK * H);
            grad.resize(room * BLOCK * H), counts.resize(room * BLOCK), inputs.resize(room * BLOCK * net.most_rows());
        }
    }

    int64_t running(int64_t t) const {
        int64_t last = size;
        while (last && c.length[episode[last - 1]] <= t) last--;
        return last;
    }

    void forward() {
        where.clear(), at.clear();
        for (int64_t i = 0; i < size; i++)
            net.begin(c.context + episode[i] * net.places, c.stage[episode[i]], before(0) + i * H);
        for (int64_t t = 0; t < steps; t++) {
            const int64_t count = running(t);
            auto input = [&](int64_t i) -> const float* {
                const int64_t e = episode[i], token = t * c.all + e, here = t * BLOCK + i;
                if (c.length[e] <= t) return nullptr;
                int32_t* rows = &inputs[here * net.most_rows()];
                counts[here] =
                    net.input_rows(c.token[token], c.stage[e], c.feedback + token * net.feedback_places, rows);
                for (int64_t k = 0; k < counts[here]; k++) rows[k] = given.packed[rows[k]];
                sum_rows(given.table.data(), rows, counts[here], G, sum.data());
                if (c.mask[token]) where.push_back(here), at.push_back(token), fetch(token);
                return sum.data();
            };
            gru_step(count, H, before(t), given.across.data(), net.inner, recurrent.data(), before(t + 1),
                     &gates[t * BLOCK * G], &inner[t * BLOCK * H], input);
            std::fill_n(&grad[t * BLOCK * H], count * H, 0.0f);
        }
    }

    void fetch(int64_t token) const {
        const LossColumns& of = c.columns;
        if (!of.advantage) return;  // log-probabilities alone
        __builtin_prefetch(of.action + token), __builtin_prefetch(of.behavior_log_prob + token);
        __builtin_prefetch(of.advantage + token), __builtin_prefetch(of.target + token);
        __builtin_prefetch(of.loss_mask + token), __builtin_prefetch(of.explored + token);
        __builtin_prefetch(of.hint_mask + token);
    }

    // Calls `each(group, first, real)` for all tokens that are asked for, LANES at a time: `chance` has the softmax of
    // token `first` and the next, `logs` their logarithms. After a group of them it calls `after(group, count)`.
    template <typename Each, typename After>
    void predict(Each each, After after) {
        const int64_t tokens = where.size();
        for (int64_t group = 0; group < tokens; group += GROUP) {
            const int64_t count = std::min(tokens - group, GROUP);
            for (int64_t i = 0; i < count; i++) std::copy_n(before(1) + where[group + i] * H, H, &states[i * H]);
            shape.score(states.data(), count, given.head_across.data(), given.head_bias.data(), out.data());
            for (int64_t first = 0; first < count; first += LANES) {
                const int real = std::min<int64_t>(LANES, count - first);
                auto context = [&](int l) { return c.context + at[group + first + l] % c.all * net.places; };
                shape.mix(&out[first * padded], real, context, mixed.data());
                std::copy_n(mixed.begin(), V * LANES, chance.begin());
                shape.add_copies(real, context, &mixed[V * LANES], chance.data());
                for (int64_t v = 0; v < V; v++)
                    store(&logs[v * LANES], logarithm(larger(load(&chance[v * LANES]), all(TINY))));
                each(group, first, real, context);
            }
            after(group, count);
        }
    }

    // The loss of the tokens in it, and the gradient by their hidden states.
    void lose(const Gradients& of, LossTotals& total) {
        float values[LANES], of_values[LANES];
        auto each = [&](int64_t group, int64_t first, int real, auto context) {
            float *scores = &out[first * padded], *copied = &mixed[V * LANES];
            auto row = [&](int l) { return at[group + first + l]; };
            for (int l = 0; l < real; l++) values[l] = scores[l * padded + V];
            loss_lanes(c.columns, c.weights, V, real, row, values, vec{}, logs.data(), chance.data(), of_values, total);
            std::fill(of_copy.begin(), of_copy.end(), 0.0f);
            shape.back(real, context, mixed.data(), copied, logs.data(), of_copy.data(), of_values, scores,
                       of.head_bias, chance.data());
        };
        predict(each, [&](int64_t group, int64_t count) {
            product(shape.scores(), H, count, out.data(), 1, padded, states.data(), H, of.head_weight, H, true);
            product(count, H, shape.scores(), out.data(), padded, 1, net.head_weight, H, of_states.data(), H, false);
            for (int64_t i = 0; i < count; i++) std::copy_n(&of_states[i * H], H, &grad[where[group + i] * H]);
        });
    }

    // The log-probabilities of the actions, [T, M].
    void write(float* to) {
        auto each = [&](int64_t group, int64_t first, int real, auto) {
            for (int l = 0; l < real; l++) {
                const int64_t token = group + first + l, t = where[token] / BLOCK;
                to[t * c.count + place[where[token] % BLOCK]] = logs[c.columns.action[at[token]] * LANES + l];
            }
        };
        predict(each, [](int64_t, int64_t) {});
    }

    void backward(const Gradients& of) {
        std::fill(carried.begin(), carried.end(), 0.0f);
        for (int64_t t = steps - 1; t >= 0; t--) {
            auto to = [&](int64_t i) { return c.length[episode[i]] > t ? sum.data() : nullptr; };
            auto added = [&](int64_t i) {
                const int64_t here = t * BLOCK + i;
                const int32_t* rows = &inputs[here * net.most_rows()];
                for (int64_t k = 0; k < counts[here]; k++) add_to(of.table + rows[k] * G, sum.data(), G);
            };
            gru_step_back(running(t), H, before(t), net.recurrent, &gates[t * BLOCK * G], &inner[t * BLOCK * H],
                          &grad[t * BLOCK * H], carried.data(), recurrent.data(), of.recurrent, of.inner, to, added);
        }
        const float scale = 1 / std::sqrt(float(net.places));
        for (int64_t i = 0; i < size; i++) {
            const int64_t *read = c.context + episode[i] * net.places, stage = c.stage[episode[i]];
            for (int64_t j = 0; j < H; j += LANES) {
                const vec start = load(before(0) + i * H + j);
                const vec of_sum = load(&carried[i * H + j]) * (1.0f - start * start);
                if (net.stage_aware) add_to(of.stages + stage * H + j, (const float*)&of_sum, LANES);
                const vec each = of_sum * scale;
                for (int64_t k = 0; k < net.places; k++)
                    add_to(of.context + (k * V + read[k]) * H + j, (const float*)&each, LANES);
            }
        }
    }
};

// The places of the episodes, the longest first, else in their order.
std::vector<int64_t> longest_first(const GradientCall& c) {
    std::vector<int64_t> order(c.count);
    for (int64_t k = 0; k < c.count; k++) order[k] = k;
    auto length = [&](int64_t k) { return c.length[c.episodes[k]]; };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
    return order;
}

// Which rows of the embeddings the inputs of the episodes need, in order; `packed` [rows] gets their new numbers.
std::vector<int64_t> used_rows(const GradientCall& c, std::vector<int32_t>& packed) {
    const Network& net = c.net;
    std::vector<int64_t> rows(net.most_rows()), which;
    for (int64_t m = 0; m < c.count; m++) {
        const int64_t e = c.episodes[m], ahead = c.episodes[std::min(m + 2, c.count - 1)];
        for (int64_t t = 0; t < c.length[ahead]; t++) {  // a row of the rollout lies far from the next
            const int64_t token = t * c.all + ahead;
            __builtin_prefetch(c.token + token);
            __builtin_prefetch(c.feedback + token * net.feedback_places);
            __builtin_prefetch(c.feedback + (token + 1) * net.feedback_places - 1);
        }
        for (int64_t t = 0; t < c.length[e]; t++) {
            const int64_t token = t * c.all + e;
            const int64_t count =
                net.input_rows(c.token[token], c.stage[e], c.feedback + token * net.feedback_places, rows.data());
            for (int64_t k = 0; k < count; k++) packed[rows[k]] = 1;
        }
    }
    for (int64_t row = 0; row < net.rows; row++)
        if (packed[row]) packed[row] = which.size(), which.push_back(row);
    return which;
}

Prepared::Prepared(const GradientCall& c) : packed(c.net.rows), which(used_rows(c, packed)), order(longest_first(c)) {
    const int64_t H = c.net.width, G = c.net.gates();
    embedding.resize(which.size() * H), table.resize(which.size() * G), across.resize(H * G);
    c.net.table(which, embedding.data(), table.data());
    transpose_to(c.net.recurrent, G, H, across.data());
    c.net.heads().pad(c.net.head_weight, c.net.head_bias, head_across, head_bias);
}

}  // namespace

extern "C" {

// The terms of the loss in the order of `LossTerms`, and the gradients of the parameters in the order of `Network`:
// `of_embedding` has room for all of them, one after the other.
void policy_gradient(const GradientCall* call, float* terms, float* of_embedding) {
    const GradientCall& c = *call;
    const Network& net = c.net;
    const Prepared given(c);
    const std::vector<int64_t>& which = given.which;
    const int64_t H = net.width, G = net.gates(), V = net.vocabulary, scores = net.heads().scores();
    const int64_t used = which.size(), stages = net.stage_aware ? net.first_place - V : 0;

    float *of_context = of_embedding + net.rows * H, *of_weight = of_context + net.places * V * H,
          *of_recurrent = of_weight + G * H, *of_bias = of_recurrent + G * H, *of_inner = of_bias + G,
          *of_head_weight = of_inner + H, *of_head_bias = of_head_weight + scores * H;
    std::vector<float> of_table(used * G), of_stages(stages * H);
    Sums sums({{of_recurrent, G * H},
               {of_inner, H},
               {of_table.data(), used * G},
               {of_stages.data(), stages * H},
               {of_context, net.places * V * H},
               {of_head_weight, scores * H},
               {of_head_bias, scores}},
              (c.count + BLOCK - 1) / BLOCK / 2);
    LossTotals totals[SUMS], sum;
    workers().share(sums.parts, c.threads, [&](int64_t part) {
        const Gradients of = {sums.of(part, 0), sums.of(part, 1), sums.of(part, 2), sums.of(part, 3),
                              sums.of(part, 4), sums.of(part, 5), sums.of(part, 6)};
        Block block(c, given);
        for (int64_t first = part * BLOCK; first < c.count; first += sums.parts * BLOCK) {
            block.take(first);
            block.forward();
            block.lose(of, totals[part]);
            block.backward(of);
        }
    });
    sums.add();
    for (const LossTotals& part : totals) sum.add(part);
    sum.write(c.weights, terms);

    // From the table to the embeddings and the weight that it is the product of.
    std::vector<float> of_rows(used * H);
    product(used, H, G, of_table.data(), G, 1, net.weight, H, of_rows.data(), H, false);
    product(G, H, used, of_table.data(), 1, G, given.embedding.data(), H, of_weight, H, false);
    std::fill_n(of_embedding, net.rows * H, 0.0f);
    std::fill_n(of_bias, G, 0.0f);
    std::copy(of_stages.begin(), of_stages.end(), of_embedding + V * H);
    for (int64_t k = 0; k < used; k++) {
        add_to(of_embedding + which[k] * H, &of_rows[k * H], H);
        if (which[k] < V) add_to(of_bias, &of_table[k * G], G);
    }
}

// The log-probabilities of the actions at tokens of the mask, [T, M]; other places of `to` keep what they have.
void action_log_probs(const GradientCall* call, float* to) {
    const Prepared given(*call);
    Block block(*call, given);
    for (int64_t first = 0; first < call->count; first += BLOCK) {
        block.take(first);
        block.forward();
        block.write(to);
    }
}

}  // extern "C"
