#include "core/bundle_files.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "core/fields.h"

namespace x2ct {
namespace {

// Section 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<std::uint32_t, 64> kK = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

using State = std::array<std::uint32_t, 8>;

// Section 6.2.2: one block of 64 bytes.
void absorb(State& state, const unsigned char* block) {
    std::array<std::uint32_t, 64> w{};
    for (int t = 0; t < 16; ++t) {
        w[t] = static_cast<std::uint32_t>(block[4 * t]) << 24 | static_cast<std::uint32_t>(block[4 * t + 1]) << 16 |
               static_cast<std::uint32_t>(block[4 * t + 2]) << 8 | block[4 * t + 3];
    }
    for (int t = 16; t < 64; ++t) {
        const std::uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
        const std::uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int t = 0; t < 64; ++t) {
        const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
        const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kK[t] + w[t];
        const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
        const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const State added = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += added[i];
}

}  // namespace

std::string sha256(std::string_view data) {
    State state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const auto* bytes = reinterpret_cast<const unsigned char*>(data.data());
    const std::size_t whole = data.size() / 64 * 64, rest = data.size() - whole;
    for (std::size_t at = 0; at < whole; at += 64) absorb(state, bytes + at);
    // Section 5.1.1: a 1 bit, zeros, and the length in bits.
    std::array<unsigned char, 128> tail{};
    if (rest > 0) std::memcpy(tail.data(), bytes + whole, rest);
    tail[rest] = 0x80;
    const std::size_t size = rest < 56 ? 64 : 128;
    const std::uint64_t bits = std::uint64_t{data.size()} * 8;
    for (int i = 0; i < 8; ++i) tail[size - 1 - i] = static_cast<unsigned char>(bits >> (8 * i));
    for (std::size_t at = 0; at < size; at += 64) absorb(state, tail.data() + at);
    std::string text;
    for (const std::uint32_t word : state) {
        for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
    }
    return text;
}

namespace {

constexpr int kDeepest = 8;             // graphs inside nodes; ours have none
constexpr std::uint64_t kExternal = 1;  // TensorProto.DataLocation.EXTERNAL

// The bytes are not what onnx.proto describes.
class Malformed : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// One field of a message: a number, or bytes.
struct Field {
    std::uint64_t number;
    bool is_bytes;
    std::uint64_t value;
    std::string_view bytes;

    std::string_view message() const {
        if (!is_bytes) throw Malformed("a number where a message belongs");
        return bytes;
    }
    std::string text() const {
        if (!is_bytes) throw Malformed("a number where a text belongs");
        if (!is_utf8(bytes)) throw Malformed("broken text");
        return std::string(bytes);
    }
    std::uint64_t integer() const {
        if (is_bytes) throw Malformed("bytes where a number belongs");
        return value;
    }
};

std::uint64_t varint(std::string_view& data) {
    std::uint64_t value = 0;
    for (int shift = 0; !data.empty() && shift <= 63; shift += 7) {
        const auto byte = static_cast<unsigned char>(data.front());
        data.remove_prefix(1);
        if (shift == 63 && byte > 1) break;  // more than 64 bits
        value |= std::uint64_t{byte & 0x7Fu} << shift;
        if (byte < 0x80) return value;
    }
    throw Malformed("a broken varint");
}

// Calls visit(field) on one message's fields in the file's order; fixed-width ones are passed over.
template <typename Visit>
void each_field(std::string_view message, const Visit& visit) {
    while (!message.empty()) {
        const std::uint64_t key = varint(message);
        const auto kind = static_cast<int>(key & 7);
        if (kind == 0) {
            visit(Field{key >> 3, false, varint(message), {}});
            continue;
        }
        if (kind != 1 && kind != 2 && kind != 5) throw Malformed("wire type " + std::to_string(kind));
        const std::uint64_t length = kind == 2 ? varint(message) : kind == 1 ? 8 : 4;
        if (length > message.size()) throw Malformed("it ends early");
        if (kind == 2) visit(Field{key >> 3, true, 0, message.substr(0, length)});
        message.remove_prefix(length);
    }
}

void check_tensor(std::string_view tensor) {
    each_field(tensor, [](const Field& field) {
        const bool elsewhere = field.number == 14 && !field.is_bytes && field.value == kExternal;
        if (field.number == 13 || elsewhere) throw Malformed("external data");
    });
}

void check_sparse(std::string_view tensor) {
    each_field(tensor, [](const Field& field) {
        if (field.number == 1 || field.number == 2) check_tensor(field.message());
    });
}

void check_graph(std::string_view graph, int depth);

void check_attribute(std::string_view attribute, int depth) {
    each_field(attribute, [&](const Field& field) {
        switch (field.number) {
            case 5:
            case 10:
                return check_tensor(field.message());
            case 6:
            case 11:
                return check_graph(field.message(), depth + 1);
            case 22:
            case 23:
                return check_sparse(field.message());
            default:
                return;
        }
    });
}

void check_node(std::string_view node, int depth) {
    each_field(node, [&](const Field& field) {
        if (field.number == 7) {
            const std::string domain = field.text();
            if (!domain.empty() && domain != "ai.onnx") throw Malformed("an operator of domain '" + domain + "'");
        }
        if (field.number == 5) check_attribute(field.message(), depth);
    });
}

void check_graph(std::string_view graph, int depth) {
    if (depth > kDeepest) throw Malformed("graphs nested too deep");
    each_field(graph, [&](const Field& field) {
        if (field.number == 1) check_node(field.message(), depth);
        if (field.number == 5) check_tensor(field.message());
        if (field.number == 15) check_sparse(field.message());
    });
}

std::string dtype_of(std::uint64_t code) {  // TensorProto.DataType, those that a network's contract may use
    switch (code) {
        case 1:
            return "float32";
        case 7:
            return "int64";
        case 10:
            return "float16";
        case 16:
            return "bfloat16";
        default:
            return "type " + std::to_string(code);
    }
}

Extent extent(std::string_view dimension) {
    Extent found{0, "?"};
    each_field(dimension, [&](const Field& field) {
        if (field.number == 1) found = {static_cast<std::int64_t>(field.integer()), ""};
        if (field.number == 2) found = {0, field.text()};
    });
    return found;
}

void read_tensor_type(std::string_view type, Tensor& tensor) {
    each_field(type, [&](const Field& field) {
        if (field.number == 1) tensor.dtype = dtype_of(field.integer());
        if (field.number != 2) return;
        each_field(field.message(), [&](const Field& inner) {
            if (inner.number == 1) tensor.shape.push_back(extent(inner.message()));
        });
    });
}

Tensor value_info(std::string_view value) {
    Tensor tensor;
    each_field(value, [&](const Field& field) {
        if (field.number == 1) tensor.name = field.text();
        if (field.number != 2) return;
        each_field(field.message(), [&](const Field& type) {
            if (type.number != 1) throw Malformed("an input or output that is no tensor");
            tensor.dtype.clear(), tensor.shape.clear();
            read_tensor_type(type.message(), tensor);
        });
    });
    return tensor;
}

void read_opset(std::string_view import, GraphFacts& facts) {
    std::string domain;
    std::uint64_t version = 0;
    each_field(import, [&](const Field& field) {
        if (field.number == 1) domain = field.text();
        if (field.number == 2) version = field.integer();
    });
    if (domain.empty() || domain == "ai.onnx") facts.opset = version;
}

GraphFacts read(std::string_view model) {
    GraphFacts facts;
    bool seen = false;
    each_field(model, [&](const Field& field) {
        if (field.number == 7) {
            seen = true;
            check_graph(field.message(), 0);
            each_field(field.message(), [&](const Field& inner) {
                if (inner.number == 11) facts.inputs.push_back(value_info(inner.message()));
                if (inner.number == 12) facts.outputs.push_back(value_info(inner.message()));
            });
        } else if (field.number == 8) {
            read_opset(field.message(), facts);
        } else if (field.number == 20 || field.number == 25) {
            throw Malformed(field.number == 20 ? "training information" : "functions");
        }
    });
    if (!seen) throw Malformed("no graph");
    return facts;
}

}  // namespace

GraphFacts read_graph(const std::string& source, std::string_view data) {
    try {
        return read(data);
    } catch (const Malformed& error) {
        refuse(source, "ONNX model", error.what(), "one self-contained graph of ai.onnx operators");
    }
}

}  // namespace x2ct
