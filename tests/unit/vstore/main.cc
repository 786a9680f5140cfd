#define BOOST_TEST_MODULE vstore
#include <boost/test/unit_test.hpp>
