// The hot loops of training a GRU on a CPU: what the same lines of torch do in a hundred small operations. Every
// function here has its plain form in Python, which is the definition; tests hold them together.
//
// Vectors are GCC's and Clang's portable ones. Matrices are float32, row after row. Row i of a result depends on row i
// of the arguments alone, to the bit: the order of a sum does not depend on how rows fall into tiles, and gradients are
// summed in parts that depend on the number of rows, but not on the number of threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace {

// Threads that wait for work, for as long as the process lives. Only one caller at a time has them; others do without.
class Crew {
    using Part = std::function<void(int64_t)>;
    static constexpr int LOOKS = 2000;  // for the next work, before a thread goes to sleep; some 50 microseconds
    std::mutex owner, door;
    std::condition_variable bell;
    const Part* part = nullptr;
    int64_t parts = 0, seats = 0, hired = 0;
    std::atomic<int64_t> next{0}, active{0}, turn{0};

    void run(const Part& part) {
        for (int64_t k; (k = next++) < parts;) part(k);
    }

    void wait() {
        for (int64_t seen = 0;;) {
            for (int look = 0; look < LOOKS && turn == seen; look++) pause();
            const Part* mine = nullptr;
            {
                std::unique_lock<std::mutex> lock(door);
                bell.wait(lock, [&] { return turn != seen; });
                seen = turn;
                if (part && seats > 0) seats--, active++, mine = part;
            }
            if (mine) run(*mine), active--;
        }
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        std::this_thread::yield();
#endif
    }

  public:
    // Calls `each` with 0 to count - 1, on so many threads at most, the caller's among them.
    void share(int64_t count, int64_t threads, const Part& each) {
        threads = std::min(threads, count);
        if (threads < 2 || !owner.try_lock()) {
            for (int64_t k = 0; k < count; k++) each(k);
            return;
        }
        for (; hired < threads - 1; hired++) std::thread([this] { wait(); }).detach();
        {
            std::lock_guard<std::mutex> lock(door);
            part = &each, parts = count, seats = threads - 1, next = 0, turn++;
        }
        bell.notify_all();
        run(each);
        {
            std::lock_guard<std::mutex> lock(door);
            part = nullptr;
        }
        while (active) pause();
        owner.unlock();
    }
};

Crew& crew() {
    static Crew* const one = new Crew;  // never deleted: its threads may outlive main
    return *one;
}

#if defined(__AVX512F__)
constexpr int LANES = 16, TALL = 6, WIDE = 4;  // 24 of 32 registers hold sums
#elif defined(__AVX__)
constexpr int LANES = 8, TALL = 6, WIDE = 2;  // 12 of 16
#elif defined(__aarch64__)
constexpr int LANES = 4, TALL = 6, WIDE = 4;  // 24 of 32
#else
constexpr int LANES = 4, TALL = 6, WIDE = 2;  // 12 of 16
#endif
constexpr int64_t BLOCK = 4 * TALL;  // episodes at a time, so few that all of them stays in the caches
constexpr int64_t SUMS = 8;          // parts that a gradient is summed in, at most

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline vec load(const float* p) { return *(const loose*)p; }
inline void store(float* p, vec x) { *(loose*)p = x; }
inline vec all(float x) { return x - vec{}; }
inline vec larger(vec a, vec b) { return a > b ? a : b; }

// Exponential and logarithm as in Moshier's Cephes library, to about one unit in the last place.

inline vec exponential(vec x) {
    x = larger(x, all(-87.0f));
    x = x < 88.0f ? x : all(88.0f);
    const vec shift = all(12582912.0f);  // adding it rounds to a whole number
    vec n = (x * 1.44269504088896341f + shift) - shift;
    x = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * x + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * x * x + x + 1.0f;
    ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return p * (vec)power;
}

inline vec logarithm(vec x) {  // of normal positive numbers
    ints bits = (ints)x;
    vec e = __builtin_convertvector((bits >> 23) - 126, vec);
    x = (vec)((bits & 0x007fffff) | 0x3f000000);  // in [0.5, 1)
    auto low = x < 0.707106781186547524f;
    e = low ? e - 1.0f : e;
    x = low ? x + x - 1.0f : x - 1.0f;
    vec p = all(7.0376836292e-2f);
    p = p * x - 1.1514610310e-1f;
    p = p * x + 1.1676998740e-1f;
    p = p * x - 1.2420140846e-1f;
    p = p * x + 1.4249322787e-1f;
    p = p * x - 1.6668057665e-1f;
    p = p * x + 2.0000714765e-1f;
    p = p * x - 2.4999993993e-1f;
    p = p * x + 3.3333331174e-1f;
    vec square = x * x;
    return (p * x * square - 2.12194440e-4f * e - 0.5f * square) + x + 0.693359375f * e;
}

inline vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

// c (+)= a · b, where a[i, k] is a[i * row + k * step], b is [depth, *] and c [*, *] with rows of ldb and ldc.

template <int ROWS, int COLUMNS>
void tile(const float* a, int64_t row, int64_t step, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t depth,
          bool add) {
    vec sum[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = add ? load(c + i * ldc + j * LANES) : vec{};
    for (int64_t k = 0; k < depth; k++) {
        vec right[COLUMNS];
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) right[j] = load(b + k * ldb + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            vec left = all(a[i * row + k * step]);
#pragma GCC unroll 8
            for (int j = 0; j < COLUMNS; j++) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) store(c + i * ldc + j * LANES, sum[i][j]);
}

template <int ROWS, int COLUMNS, typename... Rest>
void tiles(int64_t rows, int64_t columns, Rest... rest) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return tiles<ROWS - 1, COLUMNS>(rows, columns, rest...);
    if constexpr (COLUMNS > 1)
        if (columns < COLUMNS) return tiles<ROWS, COLUMNS - 1>(rows, columns, rest...);
    tile<ROWS, COLUMNS>(rest...);
}

void product(int64_t m, int64_t n, int64_t depth, const float* a, int64_t row, int64_t step, const float* b,
             int64_t ldb, float* c, int64_t ldc, bool add) {
    const int64_t vectors = n / LANES;
    for (int64_t j = 0; j < vectors; j += WIDE)
        for (int64_t i = 0; i < m; i += TALL)
            tiles<TALL, WIDE>(m - i, vectors - j, a + i * row, row, step, b + j * LANES, ldb, c + i * ldc + j * LANES,
                              ldc, depth, add);
}

}  // namespace

// Gradients that several threads sum: the first part in place, the others apart, and at last all together.
struct Sums {
    struct Target {
        float* at;
        int64_t count;
    };
    const std::vector<Target> targets;
    const int64_t parts;
    int64_t size = 0;
    std::vector<float> others;

    Sums(std::vector<Target> to, int64_t wanted) : targets(to), parts(std::clamp<int64_t>(wanted, 1, SUMS)) {
        for (const Target& target : targets) {
            size += target.count;
            std::fill_n(target.at, target.count, 0.0f);
        }
        others.resize((parts - 1) * size);
    }

    float* of(int64_t part, int which) {
        if (!part) return targets[which].at;
        float* at = others.data() + (part - 1) * size;
        while (which) at += targets[--which].count;
        return at;
    }

    void add() {
        for (int64_t part = 1; part < parts; part++)
            for (size_t k = 0; k < targets.size(); k++) {
                const float* from = of(part, k);
                for (int64_t i = 0; i < targets[k].count; i++) targets[k].at[i] += from[i];
            }
    }
};

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

// M distributions over the next token: hidden states and the heads' matrix, whose product has scores for writing each
// token, the value and, where tokens can be copied, scores for copying by place and by content (`policies/heads.py`).
struct Choices {
    const float* hidden;     // [*, width]
    const int64_t* heed;     // [M], which of its rows are meant; null for the first M
    const float* weight;     // [vocabulary + 1 (+ places + vocabulary), width]
    const float* bias;       // one each
    const int64_t* context;  // [*, places]
    const int64_t* episode;  // [M], whose context it is; null for one each
    int64_t rows, width, vocabulary, places, padding;

    static constexpr int64_t GROUP = 16 * TALL;  // rows at a time, a multiple of LANES
    int64_t scores() const { return vocabulary + 1 + (places ? places + vocabulary : 0); }
    int64_t groups() const { return (rows + GROUP - 1) / GROUP; }
    const int64_t* read(int64_t row) const { return context + (episode ? episode[row] : row) * places; }
};

// Rows of choices, some at a time: their hidden states and scores, and LANES distributions of them, one in each lane.
struct Reader {
    static constexpr int64_t GROUP = Choices::GROUP;
    const Choices& in;
    const int64_t columns, padded;              // scores of a row, and numbers from one row to the next
    std::vector<float> across, bias, own, out;  // [width, padded], [padded], [GROUP, width], [GROUP, padded]
    const float* hidden;                        // of the rows at hand
    int64_t first, count;

    std::vector<float> write, copied, chance;  // [vocabulary, LANES], [places, LANES], [vocabulary, LANES]
    int64_t row[LANES];                        // past the last it is the last again

    explicit Reader(const Choices& choices)
        : in(choices),
          columns(in.scores()),
          padded((columns + LANES - 1) / LANES * LANES),
          across(in.width * padded),
          bias(padded),
          own(GROUP * in.width),
          out(GROUP * padded),
          write(in.vocabulary * LANES),
          copied(in.places * LANES),
          chance(write.size()) {
        for (int64_t k = 0; k < columns; k++) {
            bias[k] = in.bias[k];
            for (int64_t i = 0; i < in.width; i++) across[i * padded + k] = in.weight[k * in.width + i];
        }
    }

    void score(int64_t from) {
        first = from, count = std::min(in.rows - first, GROUP), hidden = in.hidden + first * in.width;
        if (in.heed) {
            for (int64_t i = 0; i < count; i++)
                std::memcpy(&own[i * in.width], in.hidden + in.heed[first + i] * in.width, in.width * sizeof(float));
            hidden = own.data();
        }
        for (int64_t i = 0; i < count; i++) std::copy(bias.begin(), bias.end(), &out[i * padded]);
        product(count, padded, in.width, hidden, in.width, 1, across.data(), padded, out.data(), padded, true);
    }

    float value(int64_t row) const { return out[(row - first) * padded + in.vocabulary]; }

    void mix(int64_t from) {
        vec most = all(-3e38f);
        for (int l = 0; l < LANES; l++) {
            row[l] = std::min(from + l, first + count - 1);
            const float* scores = &out[(row[l] - first) * padded];
            const int64_t* context = in.read(row[l]);
            for (int64_t v = 0; v < in.vocabulary; v++) write[v * LANES + l] = scores[v];
            const float *by_place = scores + in.vocabulary + 1, *by_content = by_place + in.places;
            for (int64_t c = 0; c < in.places; c++)
                copied[c * LANES + l] = context[c] == in.padding ? -3e38f : by_place[c] + by_content[context[c]];
        }
        for (auto* scores : {&write, &copied})
            for (size_t k = 0; k < scores->size(); k += LANES) most = larger(most, load(scores->data() + k));
        vec total = {};
        for (auto* scores : {&write, &copied})
            for (size_t k = 0; k < scores->size(); k += LANES) {
                vec score = load(scores->data() + k);
                vec weight = score > -1e38f ? exponential(score - most) : vec{};
                store(scores->data() + k, weight);
                total += weight;
            }
        const vec share = 1.0f / total;
        for (auto* scores : {&write, &copied})
            for (size_t k = 0; k < scores->size(); k += LANES)
                store(scores->data() + k, load(scores->data() + k) * share);
        chance = write;
        for (int l = 0; l < LANES && in.places; l++) {
            const int64_t* context = in.read(row[l]);
            for (int64_t c = 0; c < in.places; c++) chance[context[c] * LANES + l] += copied[c * LANES + l];
        }
    }
};

constexpr int64_t HALF = 10000, BITS = 5;  // as in `tasks/arithmetic.py`
constexpr float TINY = 1e-30f;             // as in `policies/heads.py`

// The next action of every row, the logarithm of its probability, and the value: the likeliest without `uniform` [M];
// else drawn, from a mixture with `blind` [M, vocabulary] of weight `share` [M] where there is one.
void choose(const Choices* choices, const float* uniform, const float* share, const float* blind, int64_t* action,
            float* log_prob, float* value, int64_t threads) {
    const Choices& in = *choices;
    const int64_t groups = in.groups(), parts = std::min(threads, groups);
    crew().share(parts, threads, [&](int64_t part) {
        Reader reader(in);
        for (int64_t first = groups * part / parts * Reader::GROUP;
             first < std::min(in.rows, groups * (part + 1) / parts * Reader::GROUP); first += LANES) {
            if (first % Reader::GROUP == 0) reader.score(first);
            reader.mix(first);
            float chosen[LANES];
            for (int l = 0; l < LANES; l++) {
                const int64_t row = reader.row[l];
                float* chance = reader.chance.data() + l;
                float total = 0;
                int64_t best = 0;
                for (int64_t v = 0; v < in.vocabulary; v++) {
                    float& p = chance[v * LANES];
                    p = std::max(p, TINY);
                    if (share && share[row] > 0) p += share[row] * (blind[row * in.vocabulary + v] - p);
                    total += p;
                    if (p > chance[best * LANES]) best = v;
                }
                if (uniform) {
                    float sum = chance[best = 0];
                    while (best < in.vocabulary - 1 && sum < uniform[row] * total) sum += chance[++best * LANES];
                }
                action[row] = best;
                value[row] = reader.value(row);
                chosen[l] = chance[best * LANES];
            }
            const vec logs = logarithm(load(chosen));
            for (int l = 0; l < LANES; l++) log_prob[reader.row[l]] = logs[l];
        }
    });
}

// What the loss weighs a row by, as in `training/loss.py`; each [*].
struct Judged {
    const int64_t* action;
    const float *behaviour, *advantage, *target;
    const bool *free, *explored, *forced;  // the last null where nothing is
    const int64_t* where;  // [M], which rows of them are meant; null for the first M
};
struct Weights {
    float clip_low, clip_high, imitation, hint, value, entropy, count;
};

// The terms of the loss (see `Terms`), and its gradient; `of_hidden` is written at the rows meant only.
void judge(const Choices* choices, const Judged* judged, const Weights* weights, double* terms, float* of_hidden,
           float* of_weight, float* of_bias, int64_t threads) {
    const Choices& in = *choices;
    const Weights& w = *weights;
    const int64_t H = in.width, columns = in.scores();
    const bool clips = w.clip_low != 0 || w.clip_high != 0;
    const float each = 1 / w.count;
    struct Totals {
        double gains = 0, errors = 0, entropies = 0, divergences = 0, clippings = 0;
    } totals[SUMS];
    Sums sums({{of_weight, columns * H}, {of_bias, columns}}, in.groups());
    crew().share(sums.parts, threads, [&](int64_t part) {
        Reader reader(in);
        const int64_t padded = reader.padded;
        std::vector<float> slope(in.vocabulary * LANES), of_out(Reader::GROUP * padded), back(Reader::GROUP * H);
        float *of_weight = sums.of(part, 0), *of_bias = sums.of(part, 1);
        auto& [gains, errors, entropies, divergences, clippings] = totals[part];
        for (int64_t group = part * Reader::GROUP; group < in.rows; group += sums.parts * Reader::GROUP) {
            reader.score(group);
            for (int64_t first = group; first < group + reader.count; first += LANES) {
                reader.mix(first);
                int64_t acted[LANES];
                float behaviour[LANES], advantage[LANES], error[LANES], counts[LANES], imitated[LANES], chosen[LANES],
                    hinted[LANES];
                for (int l = 0; l < LANES; l++) {
                    const int64_t row = reader.row[l], at = judged->where ? judged->where[row] : row;
                    counts[l] = judged->free[at] && row == first + l;
                    hinted[l] = judged->forced && judged->forced[at] && row == first + l ? w.hint : 0;
                    behaviour[l] = judged->behaviour[at], advantage[l] = judged->advantage[at];
                    error[l] = counts[l] > 0 ? reader.value(row) - judged->target[at] : 0;
                    acted[l] = judged->action[at] * LANES + l;
                    chosen[l] = std::max(reader.chance[acted[l]], TINY);
                    imitated[l] = w.imitation != 0 && judged->explored[at] && advantage[l] > 0;
                }
                const vec zero = {}, counted = load(counts), gained = load(advantage),
                          log_prob = logarithm(load(chosen));
                const auto is_counted = counted > 0, imitates = load(imitated) > 0;
                const vec difference = is_counted ? log_prob - load(behaviour) : zero, ratio = exponential(difference);
                vec gain = ratio * gained, of_gain = gain;
                if (clips) {
                    vec bounded = larger(ratio, all(1 - w.clip_low));
                    bounded = bounded < 1 + w.clip_high ? bounded : all(1 + w.clip_high);
                    const auto cuts = bounded * gained < gain;
                    of_gain = cuts ? zero : of_gain;
                    gain = cuts ? bounded * gained : gain;
                    const vec clipped = ratio != bounded ? counted : zero;
                    for (int l = 0; l < LANES; l++) clippings += clipped[l];
                }
                gain = imitates ? w.imitation * gained * log_prob : gain;
                of_gain = is_counted ? (imitates ? w.imitation * gained : of_gain) : load(hinted);
                gain = is_counted ? gain : load(hinted) * log_prob;

                // The slope of each probability, and its mean under the distribution, which a softmax takes off.
                vec entropy = {}, mean = {};
                const vec of_entropy = counted * w.entropy, pull = of_gain / load(chosen);
                for (int64_t v = 0; v < in.vocabulary; v++) {
                    const vec p = load(&reader.chance[v * LANES]), q = larger(p, all(TINY)), log_q = logarithm(q);
                    entropy -= q * log_q;
                    store(&slope[v * LANES], p < TINY ? zero : of_entropy * (log_q + 1.0f));
                }
                for (int l = 0; l < LANES; l++) {
                    if (reader.chance[acted[l]] >= TINY) slope[acted[l]] -= pull[l];
                }
                for (int64_t v = 0; v < in.vocabulary; v++)
                    mean += load(&reader.chance[v * LANES]) * load(&slope[v * LANES]);
                for (int64_t v = 0; v < in.vocabulary; v++)
                    store(&reader.write[v * LANES],
                          load(&reader.write[v * LANES]) * (load(&slope[v * LANES]) - mean) * each);

                for (int l = 0; l < LANES && first + l < group + reader.count; l++) {
                    const int64_t row = first + l, *context = in.read(row);
                    float* own = &of_out[(row - group) * padded];
                    for (int64_t v = 0; v < in.vocabulary; v++) own[v] = reader.write[v * LANES + l];
                    own[in.vocabulary] = 2 * w.value * error[l] * each;
                    float *by_place = own + in.vocabulary + 1, *by_content = by_place + in.places;
                    for (int64_t v = 0; v < in.vocabulary && in.places; v++) by_content[v] = 0;
                    for (int64_t c = 0; c < in.places; c++) {
                        by_place[c] = reader.copied[c * LANES + l] * (slope[context[c] * LANES + l] - mean[l]) * each;
                        by_content[context[c]] += by_place[c];
                    }
                    for (int64_t k = 0; k < reader.columns; k++) of_bias[k] += own[k];
                }
                const vec divergence = ratio - 1.0f - difference;
                for (int l = 0; l < LANES; l++) {
                    if (hinted[l] != 0) gains += gain[l];
                    if (counts[l] == 0) continue;
                    gains += gain[l], errors += error[l] * error[l], entropies += entropy[l],
                        divergences += divergence[l];
                }
            }
            product(reader.columns, H, reader.count, of_out.data(), 1, padded, reader.hidden, H, of_weight, H, true);
            float* target = in.heed ? back.data() : of_hidden + group * H;
            product(reader.count, H, reader.columns, of_out.data(), padded, 1, in.weight, H, target, H, false);
            for (int64_t i = 0; i < reader.count && in.heed; i++)
                std::memcpy(of_hidden + in.heed[group + i] * H, &back[i * H], H * sizeof(float));
        }
    });
    sums.add();
    double gains = 0, errors = 0, entropies = 0, divergences = 0, clippings = 0;
    for (const Totals& part : totals) {
        gains += part.gains, errors += part.errors, entropies += part.entropies;
        divergences += part.divergences, clippings += part.clippings;
    }
    terms[1] = -gains / w.count, terms[2] = errors / w.count, terms[3] = entropies / w.count;
    terms[4] = divergences / w.count, terms[5] = clippings / w.count;
    terms[0] = terms[1] + w.value * terms[2] - w.entropy * terms[3];
}

// The pocket calculator, by the keys of `tasks/arithmetic.py`, each a word of bits: `state` is mode, entry, left,
// memory, value, target and the key pressed, [n] each; `numbers` [5, n] the first five of them after it; `verdicts` [3,
// n] done, success and invalid. Without branches, so that compilers make vectors of it.
void press(const int32_t* keys, const int64_t* const* state, int64_t n, int64_t* numbers, uint8_t* verdicts) {
    constexpr int64_t KEYS = 18, MODES = 128, LIMIT = HALF * HALF;
    enum { DIGIT = 15, RECALLS = 16, MINUS = 32, MULTIPLIES = 64, TYPES = 128, OPERATES = 256, STORES = 512 };
    enum { MODE = 10, DONE = 17, ANSWERS = 18, INVALID = 19 };  // from which bit on
    const int64_t *modes = state[0], *entries = state[1], *lefts = state[2], *memories = state[3], *values = state[4],
                  *targets = state[5], *actions = state[6];
    for (int64_t i = 0; i < n; i++) {
        const int64_t left = lefts[i], memory = memories[i], value = values[i];
        int64_t row = actions[i] + modes[i] * KEYS;
        const int64_t pressed = keys[row], typed = pressed & RECALLS ? memory : pressed & DIGIT;
        const int64_t total = pressed & MINUS ? left - typed : left + typed;
        const int64_t result = pressed & MULTIPLIES ? left * typed : total;
        row += (result >= LIMIT) | (result <= -LIMIT) ? MODES * KEYS : 0;
        const int64_t key = keys[row], after = key & TYPES ? result : value;
        numbers[i] = key >> MODE & (MODES - 1);
        numbers[n + i] = key & TYPES ? typed : entries[i];
        numbers[2 * n + i] = key & STORES ? 0 : key & OPERATES ? value : left;
        numbers[3 * n + i] = key & STORES ? value : memory;
        numbers[4 * n + i] = after;
        verdicts[i] = key >> DONE & 1;
        verdicts[n + i] = (key >> ANSWERS & 1) & (after == targets[i]);
        verdicts[2 * n + i] = key >> INVALID & 1;
    }
}

// Its display, [n, places], by the tables of its upper and its lower half.
void display(const int64_t* upper, const int64_t* lower, const int64_t* value, int64_t n, int64_t places,
             int64_t* shown) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t size = value[i] < 0 ? -value[i] : value[i], high = size / HALF;
        const int64_t skipped = std::clamp<int64_t>(int64_t{high} - 1, 0, HALF - 2);
        const int64_t word = upper[value[i] < 0 ? high + HALF + 1 : high] | lower[size - HALF * skipped];
        for (int64_t place = 0; place < places; place++) shown[i * places + place] = word >> BITS * place & 31;
    }
}

}  // extern "C"
