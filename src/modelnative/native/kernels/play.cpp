// Whole episodes on a pocket calculator, played by the shipped policy with a GRU of one layer, a block of episodes
// after the other. The definition is `play_columns` of training/rollout.py.

#include <numeric>

#include "calculator.h"
#include "network.h"
#include "sample.h"
#include "threads.h"

extern "C" {

struct PlayCall {
    Network net;
    const int64_t *context, *stage, *target;         // [n, places] and [n]
    const int32_t* rules;                            // of the calculator, and tables of its display
    const int64_t *upper, *lower;                    //
    const float* uniform;                            // [n, horizon]; null: greedily, and the next five are, too
    const int64_t *program, *hints, *delay, *reach;  // [n, horizon] and [n]
    const float* explore;                            // [n]
    int64_t modes, keys, memories, horizon, start, actions, episodes, stride, threads;
};

int64_t play_call_size() { return sizeof(PlayCall); }
}

namespace {

// What is written: row t of a column is `stride` after row t - 1.
struct Columns {
    int64_t *token, *feedback, *action;
    float *log_prob, *value, *reward;
    bool *running, *loss_mask, *explored, *invalid, *success;
};

constexpr int64_t MANY = 6 * LANES;  // episodes that a thread plays at a time

struct Table {
    const PlayCall& c;
    const Network& net;
    const HeadShape shape;
    const float *inputs, *across, *head_across, *head_bias;
    const Columns& to;
    std::vector<int64_t> episode, token, feedback, cells, action;
    std::vector<calculator::Registers> registers;
    std::vector<float> hidden, after, recurrent, sum, out, mixed, chance, other, log_prob;

    Table(const PlayCall& call, const float* inputs, const float* across, const float* head_across,
          const float* head_bias, const Columns& to)
        : c(call),
          net(call.net),
          shape(net.heads()),
          inputs(inputs),
          across(across),
          head_across(head_across),
          head_bias(head_bias),
          to(to),
          episode(MANY),
          token(MANY),
          feedback(MANY * net.feedback_places),
          cells(MANY * c.memories),
          action(MANY),
          registers(MANY),
          hidden(MANY * net.width),
          after(MANY * net.width),
          recurrent(MANY * net.gates()),
          sum(net.gates()),
          out(MANY * shape.padded()),
          mixed((net.vocabulary + shape.places) * LANES),
          chance(net.vocabulary * LANES),
          other(net.vocabulary * LANES),
          log_prob(MANY) {}

    // Plays the episodes from `first` on; the actions of the longest.
    int64_t play(int64_t first, int64_t count) {
        const int64_t F = net.feedback_places;
        for (int64_t i = 0; i < count; i++) {
            episode[i] = first + i, token[i] = c.start, registers[i] = {0, 0, 0, calculator::LIMIT};
            net.begin(c.context + (first + i) * net.places, c.stage[first + i], &hidden[i * net.width]);
            calculator::display(c.upper, c.lower, calculator::LIMIT, &feedback[i * F]);
        }
        std::fill(cells.begin(), cells.end(), 0);
        for (int64_t t = 0; t < c.horizon; t++) {
            predict(t, count);
            count = press(t, count);
            if (!count) return t + 1;
        }
        return c.horizon;
    }

    // The policy's actions, and what it thinks of them.
    void predict(int64_t t, int64_t count) {
        const int64_t V = net.vocabulary, G = net.gates();
        int64_t rows[64];
        auto input = [&](int64_t i) {
            const int64_t* shown = &feedback[i * net.feedback_places];
            const int64_t known = net.input_rows(token[i], c.stage[episode[i]], shown, rows);
            sum_rows(inputs, rows, known, G, sum.data());
            return sum.data();
        };
        gru_step(count, net.width, hidden.data(), across, net.inner, recurrent.data(), after.data(), nullptr, nullptr,
                 input);
        std::swap(hidden, after);
        shape.score(hidden.data(), count, head_across, head_bias, out.data());
        for (int64_t first = 0; first < count; first += LANES) {
            const int real = std::min<int64_t>(LANES, count - first);
            const float* scores = &out[first * shape.padded()];
            auto context = [&](int l) { return c.context + episode[first + l] * net.places; };
            shape.mix(scores, real, context, mixed.data());
            std::copy_n(mixed.begin(), V * LANES, chance.begin());
            shape.add_copies(real, context, &mixed[V * LANES], chance.data());
            // As if log-probabilities stood between, so that the result is that of the two operators.
            for (int64_t v = 0; v < V; v++)
                store(&chance[v * LANES], logarithm(larger(load(&chance[v * LANES]), all(TINY))));
            softmax(chance.data(), V);
            float drawn[LANES], weights[LANES];
            for (int l = 0; l < real; l++) {
                const int64_t e = episode[first + l], at = t * c.stride + e;
                to.value[at] = scores[l * shape.padded() + V];
                if (c.uniform) drawn[l] = c.uniform[e * c.horizon + t];
            }
            for (int l = 0; l < LANES; l++) weights[l] = share(t, episode[first + std::min(l, real - 1)]);
            auto blind = [&](int l) { return own_blind(episode[first + l]); };
            mix_blind(weights, V, real, blind, other.data(), chance.data());
            sample_lanes(c.uniform ? drawn : nullptr, V, real, chance.data(), &action[first], &log_prob[first]);
        }
    }

    // The weight of `own_blind` in the next action.
    float share(int64_t t, int64_t e) const {
        if (!c.uniform) return 0;
        const int64_t first = c.hints[e] + c.delay[e];
        return first <= t && t < first + c.reach[e] ? c.explore[e] : 0;
    }

    // As `blind_distribution` of training/rollout.py.
    const float* own_blind(int64_t e) {
        blinds.assign(net.vocabulary, 0.0f);
        float total = 0;
        for (int64_t k = 0; k < net.places; k++) {
            const int64_t read = c.context[e * net.places + k];
            if (read != net.blank && read != c.start && read < c.actions) blinds[read] += 1, total += 1;
        }
        const float each = 1.0f / c.actions;
        for (int64_t v = 0; v < net.vocabulary; v++) {
            const float uniform = v < c.actions ? each : 0;
            blinds[v] = total > 0 ? 0.5f * uniform + 0.5f * blinds[v] / total : uniform;
        }
        return blinds.data();
    }
    std::vector<float> blinds;

    // The calculator's answers; what is kept of the step; the episodes that go on, moved together.
    int64_t press(int64_t t, int64_t count) {
        const int64_t H = net.width, F = net.feedback_places, M = c.memories;
        int64_t left = 0;
        for (int64_t i = 0; i < count; i++) {
            const int64_t e = episode[i], at = t * c.stride + e;
            const bool chosen = !c.uniform || c.hints[e] <= t;
            const int64_t key = chosen ? action[i] : c.program[e * c.horizon + t];
            calculator::Verdicts verdict;
            const calculator::Registers now = calculator::press(c.rules, c.modes, c.keys, M, key, registers[i],
                                                                c.target[e], &cells[i * M], &cells[left * M], verdict);
            to.token[at] = token[i], to.action[at] = key, to.log_prob[at] = log_prob[i];
            std::copy_n(&feedback[i * F], F, to.feedback + at * F);
            to.reward[at] = verdict.success, to.running[at] = true, to.loss_mask[at] = chosen;
            to.explored[at] = chosen && share(t, e) > 0, to.invalid[at] = verdict.invalid;
            to.success[e] |= verdict.success;
            if (verdict.done) continue;
            episode[left] = e, token[left] = key, registers[left] = now;
            calculator::display(c.upper, c.lower, now.value, &feedback[left * F]);
            if (left < i) std::copy_n(&hidden[i * H], H, &hidden[left * H]);
            left++;
        }
        return left;
    }
};

}  // namespace

extern "C" {

// Writes to columns whose row t begins at t * stride, and `success`; `longest` gets the actions of the longest episode.
void play_columns(const PlayCall* call, int64_t* token, int64_t* feedback, int64_t* action, float* log_prob,
                  float* value, float* reward, bool* running, bool* loss_mask, bool* explored, bool* invalid,
                  bool* success, int64_t* longest) {
    const PlayCall& c = *call;
    const Network& net = c.net;
    const int64_t H = net.width, G = net.gates();
    const Columns to = {token,   feedback,  action,   log_prob, value,  reward,
                        running, loss_mask, explored, invalid,  success};
    std::vector<int64_t> all(net.rows);
    std::iota(all.begin(), all.end(), 0);
    std::vector<float> packed(net.rows * H), inputs(net.rows * G), across(G * H), head_across, head_bias;
    net.table(all, packed.data(), inputs.data());
    transpose_to(net.recurrent, G, H, across.data());
    net.heads().pad(net.head_weight, net.head_bias, head_across, head_bias);
    // Rows do not depend on each other, so that blocks may be as large as the threads are busy with.
    const int64_t shares = (c.episodes + MANY - 1) / MANY, parts = (shares + c.threads - 1) / c.threads * c.threads;
    std::vector<int64_t> lengths(parts, 0);
    workers().share(parts, c.threads, [&](int64_t part) {
        const int64_t first = c.episodes * part / parts, end = c.episodes * (part + 1) / parts;
        if (first == end) return;
        Table table(c, inputs.data(), across.data(), head_across.data(), head_bias.data(), to);
        lengths[part] = table.play(first, end - first);
    });
    *longest = *std::max_element(lengths.begin(), lengths.end());
}

}  // extern "C"
