#include "x2ct/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "x2ct/error.h"

namespace x2ct {
namespace {

void append(std::vector<double>& numbers, const Combination& c) {
    numbers.insert(numbers.end(), {c.x, c.y});
    numbers.insert(numbers.end(), c.h.begin(), c.h.end());
    numbers.push_back(c.noise);
}

int deepest(const Combination& c) {
    int depth = 0;
    for (int k = 1; k < kHistory; ++k) {
        if (c.h[k] != 0) depth = k;
    }
    return depth;
}

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value);
    return text;
}

// "H2"
std::string numbered(const char* name, std::uint32_t index) {
    std::string text = name;
    text += std::to_string(index);
    return text;
}

// "0.25 y + 0.75 H0 - 0.1 H1"
std::string terms(const std::vector<std::pair<double, std::string>>& parts) {
    std::string text;
    for (const auto& [factor, name] : parts) {
        if (factor == 0) continue;
        if (text.empty()) {
            text += factor < 0 ? "-" : "";
        } else {
            text += factor < 0 ? " - " : " + ";
        }
        if (std::abs(factor) != 1) text += number(std::abs(factor)) + " ";
        text += name;
    }
    return text.empty() ? "0" : text;
}

std::string terms(const Combination& c, std::uint32_t draw) {
    return terms({{c.x, "x"},
                  {c.y, "y"},
                  {c.h[0], "H0"},
                  {c.h[1], "H1"},
                  {c.h[2], "H2"},
                  {c.h[3], "H3"},
                  {c.noise, numbered("n", draw)}});
}

}  // namespace

Table::Table(std::string solver, std::vector<double> sigmas, double start_scale, double start_noise,
             std::vector<Row> rows)
    : solver_(std::move(solver)),
      sigmas_(std::move(sigmas)),
      start_scale_(start_scale),
      start_noise_(start_noise),
      rows_(std::move(rows)) {
    if (rows_.empty()) throw InputError("table: rows: found none, expected at least one");
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        const Row& row = rows_[i];
        const bool last = i + 1 == rows_.size();
        const int depth = std::max(deepest(row.x), last ? 0 : deepest(row.y));
        if (depth > static_cast<int>(i)) {
            throw InputError("table: row " + std::to_string(i) + ": found " + numbered("H", depth) +
                             ", expected no more history than there are rows before it");
        }
        history_ = std::max(history_, depth);
        uses_x_ = uses_x_ || row.x.x != 0 || (!last && row.y.x != 0);
    }
    const std::vector<double> numbers = matrix();
    if (!std::ranges::all_of(numbers, [](double v) { return std::isfinite(v); }) || !std::isfinite(start_scale_) ||
        !std::isfinite(start_noise_)) {
        throw InputError(
            "table: found a coefficient that is not finite, expected finite numbers; are two sigmas too close?");
    }
}

std::vector<std::string> Table::registers() const {
    std::vector<std::string> names;
    if (uses_x_) names.push_back("x");
    names.push_back("y");
    names.push_back("D");
    for (int k = 1; k <= history_; ++k) names.push_back(numbered("H", k));
    return names;
}

const std::vector<std::string>& Table::columns() {
    static const std::vector<std::string> names = {"sigma", "input_scale", "a",    "b",   "x.x", "x.y", "x.H0",
                                                   "x.H1",  "x.H2",        "x.H3", "x.n", "y.x", "y.y", "y.H0",
                                                   "y.H1",  "y.H2",        "y.H3", "y.n", "draw"};
    return names;
}

std::vector<double> Table::matrix() const {
    std::vector<double> numbers;
    numbers.reserve(rows_.size() * columns().size());
    for (const Row& row : rows_) {
        numbers.insert(numbers.end(), {row.sigma, row.input_scale, row.a, row.b});
        append(numbers, row.x);
        append(numbers, row.y);
        numbers.push_back(row.draw);
    }
    return numbers;
}

std::string Table::describe() const {
    std::string text =
        solver_ + ", " + std::to_string(evaluations()) + (evaluations() == 1 ? " evaluation" : " evaluations");
    text += ", registers";
    for (const auto& name : registers()) text += " " + name;
    text += "\nstart: y = " + terms({{start_scale_, "n0"}, {start_noise_, "n1"}}) + "\n";
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        const Row& row = rows_[i];
        const bool last = i + 1 == rows_.size();
        text += std::to_string(i) + ": sigma " + number(row.sigma);
        if (row.input_scale != 1) text += ", y scaled by " + number(row.input_scale);
        text += ": H0 = " + terms({{row.a, "y"}, {row.b, "D"}});
        if (last || uses_x_) text += "; x' = " + terms(row.x, row.draw);
        if (!last) text += "; y' = " + terms(row.y, row.draw);
        text += "\n";
    }
    return text;
}

}  // namespace x2ct
