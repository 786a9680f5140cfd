#define BOOST_TEST_MODULE guests
#include <boost/test/unit_test.hpp>
